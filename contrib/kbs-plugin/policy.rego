# A resource policy: a name's KEKs for the guests that run one of its measurements, and no others.
# Resources that the KBS keeps itself need a rule of their own.
package policy

import rego.v1

default allow := false

# Launch measurements by name, as the attestation token writes them (here of SEV-SNP).
measurements := {"prod": {"REPLACE-WITH-THE-LAUNCH-MEASUREMENT"}}

allow if {
	data.plugin == "external"
	count(data["resource-path"]) == 2
	data["resource-path"][0] == "coco-kp"

	cpu := input.submods.cpu0
	cpu["ear.status"] == "affirming" # the verifier's own verdict on the evidence

	evidence := cpu["ear.veraison.annotated-evidence"]
	evidence.snp.measurement in measurements[data["resource-path"][1]]
}
