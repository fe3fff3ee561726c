"""Stand-ins for the world outside: Twilio with its calls, and a speech service that needs no key."""
