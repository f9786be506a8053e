"""How often the gates accept what they are there to refuse, and how much skill they need to see."""
