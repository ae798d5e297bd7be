#!/usr/bin/env bash
# Makes and exports keys: same operations as the generate_keys.sh of upstream's key provider. Unlike
# there, an unknown key or a wrong call is an error, and an exported key is its owner's alone.
set -euo pipefail

usage() {
    cat << USAGE
usage: $0 generate [<key-repo>]
       $0 export <json-file> <key-uri> <output-file>
USAGE
}

case ${1:-} in
    generate)
        [ $# -le 2 ] || { usage >&2; exit 1; }
        exec coco-kp keys generate --repository "${2:-default}"
        ;;
    export)
        [ $# -eq 4 ] || { usage >&2; exit 1; }
        exec coco-kp --quiet keys export --force "$2" "$3" "$4"
        ;;
    -h | --help)
        usage
        ;;
    *)
        usage >&2
        exit 1
        ;;
esac
