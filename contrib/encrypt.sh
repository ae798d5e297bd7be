#!/usr/bin/env bash
# Encrypts an image with skopeo and coco-kp: same flags and exit status as the encrypt.sh of upstream's
# key-provider container. Unlike there, the key lies in a folder of its own that only its owner may
# enter and that is gone at the end, no server runs (skopeo calls coco-kp itself), and everything that
# can be checked is checked before skopeo starts.
#
# The key is an argument, as upstream has it: every user of this machine can read it while this runs.
# Where that matters use `coco-kp encrypt --keypath FILE`.
set -euo pipefail
umask 077

usage() {
    echo "usage: $0 [-k <b64-encoded key>] [-i <key id>] [-s <source>] [-d <destination>]"
}

fail() {
    echo "$1" >&2
    exit 1
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

key_id='' source='' destination=''
while getopts ':k:i:s:d:h' option; do
    case $option in
        k)
            printf '%s' "$OPTARG" | base64 -d > "$folder/key" 2> /dev/null || : > "$folder/key"
            [ "$(stat -c %s "$folder/key")" -eq 32 ] || fail 'key should be a b64-encoded 32 byte key'
            ;;
        i) key_id=$OPTARG ;;
        s) source=$OPTARG ;;
        d) destination=$OPTARG ;;
        h)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 1
            ;;
    esac
done
if [ ! -e "$folder/key" ] || [ -z "$key_id" ] || [ -z "$source" ] || [ -z "$destination" ]; then
    usage >&2
    exit 1
fi

parameters="keypath=$folder/key::keyid=$key_id::algorithm=A256GCM"
coco-kp --quiet config --cmd --output "$folder/ocicrypt.json" -- --key-dir "$folder"
export OCICRYPT_KEYPROVIDER_CONFIG=$folder/ocicrypt.json
coco-kp doctor --parameters "$parameters" > "$folder/doctor" || fail "$(grep --after-context=1 '^FAIL' "$folder/doctor")"

skopeo copy --insecure-policy \
    --encryption-key "provider:attestation-agent:$parameters" "$source" "$destination"
