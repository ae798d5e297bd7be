# A resource policy for a trial: every guest that the KBS attested gets the KEKs of one name.
# It allows nothing else, no resource of the KBS either.
package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "external"
	data["resource-path"] == ["coco-kp", "prod"]
}
