//! Whom certificates speak for, and until when.

use std::time::Duration;

use cloud_domain::{CloudId, HostId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::*;

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate with these URIs, and its key.
    fn issue(&self, uris: &[String]) -> (rcgen::Certificate, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(uri.clone().try_into().unwrap())).collect();
        (params.signed_by(&key, &self.0).unwrap(), key.serialize_pem())
    }
}

#[test]
fn a_certificate_speaks_for_the_one_identity_in_it_or_for_nobody() {
    let (ca, cloud) = (Ca::new(), CloudId::random());
    let gateway = Identity::Gateway { cloud }.to_string();
    let agent = Identity::Agent { cloud, host: HostId::random(), daemon: Daemon::Storage }.to_string();
    let of = |uris: &[String]| identity_of(ca.issue(uris).0.der());
    assert_eq!(of(std::slice::from_ref(&gateway)).unwrap().to_string(), gateway);
    assert_eq!(of(std::slice::from_ref(&agent)).unwrap().to_string(), agent);
    assert!(of(&[]).unwrap_err().contains("no URI"));
    assert!(of(&[gateway, agent]).unwrap_err().contains("several"));
    assert!(of(&["https://example.com/".to_owned()]).is_err());
}

#[test]
fn credentials_are_whole_or_none() {
    let (ca, cloud) = (Ca::new(), CloudId::random());
    let uri = [Identity::Gateway { cloud }.to_string()];
    let ((certificate, key), (other, other_key)) = (ca.issue(&uri), ca.issue(&uri));
    let material = Material::from_pem(&certificate.pem(), &key, &ca.0.pem()).unwrap();
    assert_eq!(material.identity, Identity::Gateway { cloud });
    assert!(matches!(
        Material::from_pem(&certificate.pem(), &other_key, &ca.0.pem()),
        Err(CredentialError::Unusable(_))
    ));
    assert!(matches!(Material::from_pem(&other.pem(), &other_key, ""), Err(CredentialError::Empty { .. })));
    let credentials = Credentials::new(material);
    let before = credentials.generation();
    credentials.replace(Material::from_pem(&other.pem(), &other_key, &ca.0.pem()).unwrap());
    assert_eq!(credentials.generation(), before + 1);
}

#[test]
fn a_certificate_is_renewed_when_two_thirds_have_passed() {
    let from = std::time::SystemTime::now();
    let validity = Validity { from, until: from + Duration::from_secs(30) };
    assert_eq!(validity.renew_at(), from + Duration::from_secs(20));
    assert!(!validity.is_over());
    assert!(Validity { from: from - Duration::from_secs(2), until: from - Duration::from_secs(1) }.is_over());
}
