from typing import Any

class CallEffectKind:
    ExprAnnotation: Any
    Opaque: Any
    Pure: Any
    ReadState: Any
    UpdateState: Any
