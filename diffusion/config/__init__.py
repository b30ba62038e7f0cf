"""The contents of a config: choices in conf/ and in a user's folder, the values of each key, formats of stored
configs."""
