"""``docker://host/repository[:tag][@digest]``: images in a registry (OCI distribution-spec)."""
