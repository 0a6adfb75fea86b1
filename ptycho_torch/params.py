"""`cfg`, the plain parameter dict that tools written against upstream PtychoPINN read.

Nothing in this project reads it. :func:`ptycho_torch.config.update_legacy_dict` fills it once per
training job."""

from typing import Any

cfg: dict[str, Any] = {}
