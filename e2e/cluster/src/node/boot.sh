# Boots a node: first its cgroups, then its namespaces, then init.sh. `boot.sh <folder> <network> <init.sh>`
set -e
while read -r door; do
  echo $$ > "$door"
done < "$1/doors"
exec nsenter --net="$2" -- unshare --mount --pid --uts --fork --kill-child --mount-proc sh "$3"
