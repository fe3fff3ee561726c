"""What can go wrong, by whose fault it is and whether trying again can help.

    RelayError
    ├── SettingsError       ours: a setting is missing or wrong, and the sentence names it
    └── ServiceError        a speech service's connection is not to be had, or was lost
        ├── Refused         final: the key, the account or the request is at fault
        ├── Unavailable     theirs: too busy or broken; may pass
        └── Lost            the network's, or nobody's: dropped, stalled, closed early; may pass

Every message is one sentence a person can act on, and holds no key and no spoken word.
"""

from __future__ import annotations


class RelayError(Exception):
    """The root of all errors this program raises on purpose."""


class SettingsError(RelayError):
    """A setting is missing or wrong. The message names the variable and says what it should be."""


class ServiceError(RelayError):
    """A speech service's connection failed."""


class Refused(ServiceError):
    """The service said no for good; the same request will be refused again."""


class Unavailable(ServiceError):
    """The service cannot take us now; later it may."""


class Lost(ServiceError):
    """The connection ended, or went silent, before its work was done."""
