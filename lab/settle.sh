#!/bin/sh
# Lets every namespace that is made on this machine from now on have a higher number than its own.
#
# A mount namespace may be held by a file (nsfs) only in one with a lower number, as that shows it to
# be older (mnt_ns_loop in fs/namespace.c); else mount(2) says "Invalid argument". In Linux 6.18 each
# CPU takes its numbers from a batch of its own, so that a younger namespace may have the lower one
# (later kernels count for all CPUs together again). On bare metal this harms nobody, as the first
# mount namespace has the lowest number of all. A machine of the lab lives in a namespace of its own,
# and job_container/tmpfs, which holds the namespace of each job so, failed there on some CPUs: the
# node was "still not ready" for the job. So the rest of each CPU's batch is used up, of 4096 numbers
# (include/linux/cookie.h: COOKIE_LOCAL_BATCH), by the kind of namespace that costs least.
case $(uname -m) in
    x86_64) unshare=272 ;;
    aarch64) unshare=97 ;;
    *) exit 0 ;;
esac
for cpu in $(seq 0 $(($(nproc --all) - 1))); do
    # shellcheck disable=SC2016 # perl's, not the shell's
    taskset -c "$cpu" perl -e '
        my ($unshare, $new_uts) = (shift, 0x04000000);
        for (1 .. 4096) { syscall($unshare + 0, $new_uts) == 0 or die "unshare: $!\n" }' "$unshare"
done
