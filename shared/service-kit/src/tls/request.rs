//! Keys, and requests for certificates: what a host makes itself and what leaves it.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::CredentialError;

/// A new key (ECDSA on P-256) in PEM.
///
/// # Errors
/// The system has no randomness.
pub fn new_key() -> Result<String, CredentialError> {
    Ok(KeyPair::generate().map_err(CredentialError::Make)?.serialize_pem())
}

/// A request (PKCS #10, PEM) for a certificate of this key. Whom it will be for is not the request's to say.
///
/// # Errors
/// The key is none.
pub fn certificate_request(key: &str) -> Result<String, CredentialError> {
    let key = KeyPair::from_pem(key).map_err(CredentialError::Make)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "The Cloud");
    let request = params.serialize_request(&key).map_err(CredentialError::Make)?;
    request.pem().map_err(CredentialError::Make)
}
