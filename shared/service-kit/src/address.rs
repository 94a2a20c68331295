//! Where a daemon listens, or is reached.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// A unix socket or a TCP host and port. Written `unix:/path`, `tcp:host:port` or `host:port`; an IPv6 address stands in
/// brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// The absolute path of a unix socket.
    Unix(PathBuf),
    /// A host name or an IP address (without brackets), and a port.
    Tcp {
        /// Name or IP address.
        host: String,
        /// Port; 0 lets the kernel choose when listening.
        port: u16,
    },
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address ({problem}): write `unix:/path`, `tcp:host:port` or `host:port`")]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl Address {
    /// Whether only processes of this machine can reach it: a unix socket, `localhost` or a loopback IP address. Any other host
    /// name counts as beyond loopback, whatever it resolves to.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |problem| AddressError { text: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is the URL form of the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(error("the path of a unix socket must be absolute"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let rest = text.strip_prefix("tcp:").unwrap_or(text);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| error("the port is missing"))?;
        let port = port.parse().map_err(|_| error("the port must be a number up to 65535"))?;
        let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
            Some(Some(inner)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(error("brackets must hold an IPv6 address")),
            None if host.contains(':') => return Err(error("an IPv6 address must stand in brackets")),
            None => host,
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(known) {
            return Err(error("the host must be a name or an IP address"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, address, shown) in [
            ("unix:/run/a.sock", Address::Unix("/run/a.sock".into()), "unix:/run/a.sock"),
            ("unix:///run/a.sock", Address::Unix("/run/a.sock".into()), "unix:/run/a.sock"),
            ("tcp:host-1:80", tcp("host-1", 80), "tcp:host-1:80"),
            ("127.0.0.1:0", tcp("127.0.0.1", 0), "tcp:127.0.0.1:0"),
            ("[::1]:8080", tcp("::1", 8080), "tcp:[::1]:8080"),
        ] {
            let read: Address = text.parse().unwrap();
            assert_eq!(read, address);
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn bad_addresses_name_the_text_and_the_problem() {
        for (text, problem) in [
            ("unix:a.sock", "absolute"),
            ("host", "port is missing"),
            ("host:99999", "up to 65535"),
            ("::1:80", "brackets"),
            ("[host]:80", "IPv6"),
            (":80", "name or an IP"),
            ("a/b:80", "name or an IP"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn loopback_is_what_other_machines_cannot_reach() {
        for text in ["unix:/a", "localhost:1", "127.8.8.8:1", "[::1]:1"] {
            assert!(text.parse::<Address>().unwrap().is_loopback(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "gateway:1"] {
            assert!(!text.parse::<Address>().unwrap().is_loopback(), "{text}");
        }
    }

    #[test]
    fn serde_uses_the_text() {
        let address: Address = serde_json::from_str(r#""unix:/a""#).unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), r#""unix:/a""#);
        assert!(serde_json::from_str::<Address>(r#""nope""#).is_err());
    }
}
