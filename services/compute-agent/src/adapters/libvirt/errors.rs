//! libvirt's errors as ours. libvirt has few codes and many words, so some causes can only be told by their words; those are QEMU's and libvirt's
//! messages of the last ten years. What is not recognised keeps its words.

use virt::error::{Error, ErrorDomain, ErrorNumber};

use crate::core::HypervisorError;

/// What `error` says about an attempt to `action`.
pub fn translate(action: &'static str, error: &Error) -> HypervisorError {
    let message = error.message().trim().to_owned();
    if is_connection_loss(error) {
        return HypervisorError::Unavailable(message);
    }
    if error.code().is(ErrorNumber::NoDomain) {
        return HypervisorError::Gone;
    }
    if error.code().is(ErrorNumber::OperationInvalid) {
        return HypervisorError::WrongState(message);
    }
    from_words(action, message)
}

fn from_words(action: &'static str, message: String) -> HypervisorError {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["cannot allocate memory", "cannot set up guest memory", "unable to allocate memory"]) {
        HypervisorError::NoMemory(message)
    } else if says(&["\"write\" lock", "\"consistent read\" lock"]) {
        HypervisorError::DiskLocked(message)
    } else if says(&[
        "/dev/net/tun",
        "specified dev doesn't exist",
        "tap interface",
        "tap device",
        "interface mtu",
        "interface mac",
        "network device",
        "vnet header",
    ]) {
        HypervisorError::NetworkDevice(message)
    } else if says(&["permission denied", "operation not permitted"]) {
        HypervisorError::FileAccess(message)
    } else if says(&["no such file or directory", "cannot access storage file"]) {
        HypervisorError::MissingFile(message)
    } else {
        HypervisorError::Failed { action, message }
    }
}

/// Whether the connection, rather than the call, failed.
pub fn is_connection_loss(error: &Error) -> bool {
    const WORDS: [&str; 7] = [
        "client socket is closed",
        "connection reset by peer",
        "broken pipe",
        "end of file while reading data",
        "keepalive timeout",
        "failed to connect socket",
        "unable to connect",
    ];
    let lower = error.message().to_lowercase();
    let of_transport = error.domain().is(ErrorDomain::Rpc) || error.domain().is(ErrorDomain::Remote);
    lower.contains(WORDS[0]) || of_transport && WORDS.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_by_their_words() {
        let told = |message: &str| from_words("start the guest", message.to_owned());
        assert!(matches!(
            told(
                "internal error: QEMU unexpectedly closed the monitor: qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory"
            ),
            HypervisorError::NoMemory(_)
        ));
        assert!(matches!(
            told("Cannot access storage file '/x.qcow2': No such file or directory"),
            HypervisorError::MissingFile(_)
        ));
        assert!(matches!(
            told("Cannot access storage file '/x' (as uid:64055, gid:64055): Permission denied"),
            HypervisorError::FileAccess(_)
        ));
        assert!(matches!(
            told("qemu-system-x86_64: -device x: Failed to get \"write\" lock"),
            HypervisorError::DiskLocked(_)
        ));
        assert!(matches!(
            told("internal error: something else"),
            HypervisorError::Failed { action: "start the guest", message } if message == "internal error: something else"
        ));
    }
}
