# The first process of a node: gives it its own folders where a machine has them, and then buries the dead.
# It runs in fresh mount, pid, uts and network namespaces, with $NODE, its name, and $FOLDER, what it keeps.
set -e
mount --make-rshared /
hostname "$NODE"

# Everything that kubelet, containerd and the CNI plugins write at fixed places goes to the node's own folders. A
# tmpfs over /var/lib and /run rather than folders in them: the machine itself must not get any.
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
for name in kubelet containerd; do
  mkdir "/var/lib/$name"
  mount --bind "$FOLDER/$name" "/var/lib/$name"
done
mkdir /run/lock
mount --bind "$FOLDER/log" /var/log

# The kubelet insists on some settings of the whole machine. It gets copies of them to write to.
mkdir /run/sysctl
for path in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  copy="/run/sysctl/$(basename "$path")"
  cat "/proc/sys/$path" > "$copy"
  mount --bind "$copy" "/proc/sys/$path"
done

touch "$FOLDER/ready"
# Containers whose parents have ended become ours.
while :; do
  sleep 3600 &
  wait $!
done
