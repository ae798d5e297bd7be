"""Container images that only an attested Confidential Containers guest can open."""
