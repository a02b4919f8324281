# Starts a program in a node: first its cgroups, then its namespaces. `enter.sh <folder> <program> <argument>...`
set -e
folder=$1
shift
while read -r door; do
  echo $$ > "$door"
done < "$folder/doors"
exec nsenter --target "$(cat "$folder/init.pid")" --mount --net --pid --uts -- "$@"
