"""Numbers on their way from the device to the host, for which nobody waits before they are read."""

from torch import Tensor, cuda


class DeviceNumbers:
    """fp32 `[n]` on the device: the copy starts at once, so reading waits for nothing that was begun after it."""

    def __init__(self, values: Tensor) -> None:
        self._host = values.to("cpu", non_blocking=True)
        self._copied: cuda.Event | None = None
        if values.device.type == "cuda":
            self._copied = cuda.Event()
            self._copied.record()

    def read(self) -> list[float]:
        """The numbers; waits until they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host.tolist()
