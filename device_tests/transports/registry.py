"""The transports that exist, by the name that devices.toml gives them.

"adb" will be the third one; it needs nothing from the rest of the house but its line here.
"""

from __future__ import annotations

from typing import Final

TRANSPORTS: Final[dict[str, str]] = {
    "local": "edgeship.device_tests.transports.local:LocalTransport",
    "ssh": "edgeship.device_tests.transports.ssh:SshTransport",
}
