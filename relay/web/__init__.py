"""The web side: Twilio's media socket, and what a browser or a health check finds."""
