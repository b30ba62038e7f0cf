"""What everything stands on: errors, files, images, noise by index, progress bars, devices."""
