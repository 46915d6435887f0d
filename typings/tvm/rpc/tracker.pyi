from typing import Any

class Tracker:
    def __init__(
        self,
        host: Any = ...,
        port: Any = ...,
        port_end: Any = ...,
        silent: Any = ...,
        reuse_addr: Any = ...,
        timeout: Any = ...,
    ) -> None: ...
    host: Any
    port: Any
    proc: Any
    stop_key: Any
    def terminate(self) -> Any: ...
