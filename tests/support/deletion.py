"""Deleting a key of a KBS, which coco-kp never does for a user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coco_kp.kbs.client import resource_path

if TYPE_CHECKING:
    from coco_kp.kbs.admin import Admin
    from coco_kp.model.resource_uri import ResourceUri


def delete_resource(admin: Admin, uri: ResourceUri) -> None:
    """Delete a resource as an admin; that there is none is an error, too."""
    bearer = admin.token.bearer() if admin.token else ""
    refusal = admin.kbs.call("DELETE", resource_path(uri), bearer=bearer).refusal
    if refusal:
        raise refusal.error(f"delete '{uri}'")
