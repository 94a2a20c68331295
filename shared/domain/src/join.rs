//! The text of a join token: `cj1.<fingerprints>.<id>.<secret>@<addresses>`.
//!
//! It carries all that a new host needs: where the gateways are, by which authorities it knows them (so that it tells its secret to nobody
//! else), and the secret that lets it in. It is one word for a shell.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// The form of the text.
const FORM: &str = "cj1";

/// A SHA-256 digest of an authority's certificate.
pub type Fingerprint = [u8; 32];

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The authorities that the gateways' certificates may come from.
    pub authorities: Vec<Fingerprint>,
    /// Which token.
    pub id: Uuid,
    /// 64 digits of hex.
    pub secret: String,
    /// Where the gateways are: `host:port`.
    pub gateways: Vec<String>,
}

/// A text that is no join token. Does not say what the text was: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token ({0}): copy the whole of what `cloud host token create` printed")]
pub struct JoinTokenError(&'static str);

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("gateways", &self.gateways).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities: Vec<_> = self.authorities.iter().map(hex).collect();
        let (id, gateways) = (self.id.simple(), self.gateways.join(","));
        write!(f, "{FORM}.{}.{id}.{}@{gateways}", authorities.join("+"), self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let (token, gateways) = text.trim().split_once('@').ok_or(JoinTokenError("it has no address"))?;
        let mut parts = token.split('.');
        if parts.next() != Some(FORM) {
            return Err(JoinTokenError("it does not begin with cj1"));
        }
        let [Some(authorities), Some(id), Some(secret), None] =
            [parts.next(), parts.next(), parts.next(), parts.next()]
        else {
            return Err(JoinTokenError("it does not have four parts"));
        };
        let authorities: Option<Vec<_>> = authorities.split('+').map(fingerprint).collect();
        let gateways: Vec<_> = gateways.split(',').map(str::to_owned).collect();
        if gateways.iter().any(String::is_empty) {
            return Err(JoinTokenError("an address is empty"));
        }
        if secret.len() != 64 || fingerprint(secret).is_none() {
            return Err(JoinTokenError("its secret is cut off"));
        }
        Ok(Self {
            authorities: authorities.ok_or(JoinTokenError("its fingerprint is not whole"))?,
            id: Uuid::try_parse(id).map_err(|_| JoinTokenError("its id is not whole"))?,
            secret: secret.to_owned(),
            gateways,
        })
    }
}

/// A fingerprint in hex, as people compare it; colons between bytes are taken too.
#[must_use]
pub fn fingerprint(text: &str) -> Option<Fingerprint> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair.first(), pair.get(1)].map(|d| d.and_then(|d| char::from(*d).to_digit(16)));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

/// A fingerprint in hex.
#[must_use]
pub fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            authorities: vec![[0xab; 32], [7; 32]],
            id: Uuid::from_u128(0x1234),
            secret: "5".repeat(64),
            gateways: vec!["10.0.0.1:8443".into(), "[fd00::1]:8443".into()],
        }
    }

    #[test]
    fn tokens_are_read_as_they_are_written_and_debug_output_hides_the_secret() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
        assert!(!format!("{:?}", token()).contains("5555"));
    }

    #[test]
    fn a_token_that_was_cut_is_refused_wherever_it_was_cut() {
        let text = token().to_string();
        let address = text.find('@').unwrap();
        for end in 0..=address {
            assert!(text[..end].parse::<JoinToken>().is_err(), "{}", &text[..end]);
        }
        for start in 1..address {
            assert!(text[start..].parse::<JoinToken>().is_err(), "{}", &text[start..]);
        }
    }

    #[test]
    fn fingerprints_may_have_colons() {
        let plain = hex(&[0x0f; 32]);
        let colons = vec!["0F"; 32].join(":");
        assert_eq!(fingerprint(&plain), fingerprint(&colons));
        assert_eq!(fingerprint("0f"), None);
        assert_eq!(fingerprint(&"zz".repeat(32)), None);
    }
}
