"""What a user would pick instead: the same relay, as a competent user of each stack would write it."""
