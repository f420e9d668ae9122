#!/bin/sh
# Builds this model's engine on the machine that will run it, compares its answers with the recorded ones, measures
# how fast it is, and packs what was found into one file. The engine was not built where this kit was made: an engine
# belongs to the machine that builds it. Needs Python 3.8 or newer and TensorRT. Try --help.
set -eu

folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ ! -f "$folder/kit/ttl_deploy_board/on_target.py" ]; then
    echo "error: $folder/kit is not whole: copy the artifact's folder again" >&2
    exit 4
fi
for python in "${PYTHON:-python3}" python3.12 python3.11 python3.10 python3.8 /usr/bin/python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        PYTHONPATH="$folder/kit${PYTHONPATH:+:$PYTHONPATH}" \
            exec "$python" -m ttl_deploy_board.on_target --folder "$folder" "$@"
    fi
done
echo "error: no Python 3.8 or newer is here: apt-get install python3, or name one: PYTHON=/path/to/python3 sh $0" >&2
exit 6
