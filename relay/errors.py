"""What can go wrong, by whose fault it is and whether trying again can help.

    RelayError
    ├── SettingsError       ours: a setting is missing or wrong, and the sentence names it
    ├── StoreError          (relay.store) the database is not to be had just now
    ├── Unreached           (relay.outward) a webhook's receiver gave no answer
    ├── RecordingError      (relay.recording) a recording cannot be read
    └── ServiceError        a speech service's connection is not to be had, or was lost
        ├── Refused         ours, and final: the request is at fault
        │   └── Denied      final for every call: the key or the account is at fault
        ├── Unavailable     theirs: too busy or broken; may pass
        │   └── Full        ours: as much of it is in use as our settings allow
        └── Lost            the network's, or nobody's: dropped, closed early; may pass
            ├── Stalled     theirs: takes audio, or says nothing, for too long
            └── Misspoke    ours: a rule of the service was broken; on a new connection it need not be

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


class Denied(Refused):
    """The service will have no call of ours: the key is wrong, or the account may not or cannot pay."""


class Unavailable(ServiceError):
    """The service cannot take us now; later it may."""


class Full(Unavailable):
    """As much of the service is in use as our own settings allow. It says nothing of how well the service is."""


class Lost(ServiceError):
    """The connection ended, or went silent, before its work was done."""


class Stalled(Lost):
    """The connection stands, and nothing comes of it."""


class Misspoke(Lost):
    """We broke one of the service's rules. It says nothing of how well the service is."""
