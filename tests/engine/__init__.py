"""The commands on images as a user runs them, on images in files and a registry in this process."""
