class InternalError(RuntimeError):
    pass
