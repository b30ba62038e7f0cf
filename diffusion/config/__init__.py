"""What a config may hold: choices in conf/ and in a folder of one's own, what each key takes, formats of stored configs."""
