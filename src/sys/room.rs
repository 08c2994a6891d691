//! Whether something can be written into a directory, as far as that is seen without writing.

use std::os::fd::AsFd;

use rustix::fs::{StatVfsMountFlags, fstat, fstatvfs, major, minor, statvfs};

/// Why nothing can be written there, to be said behind its name; `None`: nothing is in the way, or that can't be seen.
///
/// A service that may only look has everything mounted read-only for itself (`ProtectSystem=strict` in systemd.exec(5)): that
/// says nothing of others.
#[must_use]
pub fn without_room(dir: impl AsFd) -> Option<&'static str> {
    let found = fstatvfs(&dir).ok()?;
    let is_read_only = found.f_flag.contains(StatVfsMountFlags::RDONLY);
    // Some file systems count no inodes.
    let is_full = found.f_bfree == 0 || (found.f_files > 0 && found.f_ffree == 0);
    let only_looks = || statvfs("/").is_ok_and(|root| root.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only && (is_read_only_for_all(&dir) || !only_looks()) {
        Some("is on a file system that is mounted read-only")
    } else if is_full {
        Some("is on a file system that is full")
    } else {
        None
    }
}

/// Whether the file system itself is read-only, and not only one place where it is mounted.
fn is_read_only_for_all(dir: impl AsFd) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    fstat(dir).is_ok_and(|found| {
        let device = format!("{}:{}", major(found.st_dev), minor(found.st_dev));
        is_read_only_in(&mounts, &device)
    })
}

/// The same by the text of `/proc/PID/mountinfo`, see proc(5): the third field is the device, the last one has the file system's options.
fn is_read_only_in(mounts: &str, device: &str) -> bool {
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(device);
    let options = |line: &str| line.rsplit(' ').next().is_some_and(|all| all.split(',').any(|it| it == "ro"));
    mounts.lines().find(of_device).is_some_and(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_a_file_system_are_told_apart() {
        let mounts = "22 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                      23 22 8:2 / /srv/my\\040data rw,relatime - ext4 /dev/sdb1 ro\n";
        assert!(!is_read_only_in(mounts, "8:1"), "only where it is mounted");
        assert!(is_read_only_in(mounts, "8:2"));
        assert!(!is_read_only_in(mounts, "8:3"), "nothing is known of it");
    }
}
