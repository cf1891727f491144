"""Where arrays are computed: on the CPU, or on a GPU through PyTorch."""

from typing import Any

from plait.errors import DependencyError, OptionError


def torch_device(device: str) -> Any:
    """Return the PyTorch device that ``device`` means; None is the compiled kernels of the CPU.

    Parameters
    ----------
    device : {"cpu", "cuda", "auto"}
        ``"auto"`` is a GPU where PyTorch finds one.

    Raises
    ------
    OptionError
        It is none of these, or PyTorch sees no GPU.
    DependencyError
        PyTorch is not installed.
    """
    if device == "cpu":
        return None
    if device not in ("cuda", "auto"):
        raise OptionError(f"device is {device!r}; choose 'cpu', 'cuda' or 'auto'.")
    try:
        import torch
    except ModuleNotFoundError as error:
        if device == "auto":
            return None
        raise DependencyError("device='cuda' needs PyTorch: pip install 'plait[gpu]'.") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if device == "auto":
        return None
    raise OptionError("device is 'cuda' and PyTorch sees no GPU; choose 'cpu' or 'auto'.")
