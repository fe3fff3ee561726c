"""The core of the relay: a phone call's audio in, words out. It knows no vendor by name."""
