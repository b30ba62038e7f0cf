"""What a config may hold: choices in conf/ and in an own folder, what each key takes, formats of stored configs."""
