"""Pure judgement: ``decide(world, now)`` looks at plain data and says what should be written, and why."""
