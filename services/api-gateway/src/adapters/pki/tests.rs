//! Authorities: one for all gateways of a cloud, and what they issue.

use std::{path::Path, time::Duration};

use cloud_core::ports::{AuthorityError, CertificateAuthority as _, Store as _};
use cloud_domain::{Daemon, HostId, Identity};
use cloud_service_kit::tls::{Material, Validity, identity_of, request, serial_of};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::adapters::sql::SqlStore;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn store(dir: &Path) -> SqlStore {
    SqlStore::open(&format!("sqlite:{}", dir.join("gateway.db").display())).await.unwrap()
}

async fn open(store: &SqlStore, master: &Path) -> Authorities {
    Authorities::built_in(store, master, DAY, 1000 * DAY).await.unwrap()
}

#[tokio::test]
async fn gateways_with_the_master_key_share_the_authority_and_others_cannot_issue() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let master = dir.path().join("master.key");
    let (first, second) = (open(&store, &master).await, open(&store, &master).await);
    assert_eq!(first.fingerprints(), second.fingerprints());
    assert_eq!(first.fingerprints().len(), 1);
    let (cloud, key) = (store.identity().0, KeyPair::generate().unwrap());
    // What one issues, the other vouches for.
    let shown = gateway_credentials(&first, &key, DAY).unwrap();
    assert_eq!(shown.identity, Identity::Gateway { cloud });
    Material::from_pem(&first.gateway_chain(&key, DAY).unwrap(), &key.serialize_pem(), &second.trusted()).unwrap();
    let stranger = open(&store, &dir.path().join("none.key")).await;
    assert!(stranger.closed().unwrap().to_string().contains("another master key"), "{:?}", stranger.closed());
    MasterKey::ensure(&dir.path().join("other.key")).unwrap();
    let stranger = open(&store, &dir.path().join("other.key")).await;
    assert!(stranger.closed().is_some() && gateway_credentials(&stranger, &key, DAY).is_err());
    let request = request::certificate_request(&key.serialize_pem()).unwrap();
    let refused = stranger.issue(&request, Identity::Gateway { cloud }, DAY);
    assert!(matches!(refused, Err(AuthorityError::Closed(_))));
}

#[tokio::test]
async fn of_a_request_nothing_but_the_key_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let authorities = open(&store, &dir.path().join("master.key")).await;
    let cloud = store.identity().0;
    let own = Identity::Agent { cloud, host: HostId::random(), daemon: Daemon::Storage };
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
    let other = Identity::Gateway { cloud }.to_string();
    wanted.subject_alt_names.push(SanType::URI(other.try_into().unwrap()));
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let wanted = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let issued = authorities.issue(&wanted, own, Duration::from_secs(600)).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    assert_eq!(identity_of(&certificate), Ok(own));
    assert_eq!(serial_of(&certificate).unwrap(), issued.serial);
    let left = Validity::of(&certificate).unwrap().until.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(580), "{left:?}");
    assert!(issue::belongs(&certificate, &key).unwrap_err().contains("none of an authority"));
    assert!(authorities.is_of_the_newest(&certificate));
    // A request is signed by its key.
    let broken = wanted.replacen("MI", "MJ", 1);
    assert!(matches!(authorities.issue(&broken, own, DAY), Err(AuthorityError::Request(_))));
}

#[tokio::test]
async fn a_new_authority_issues_at_once_and_is_shown_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let authorities = open(&store, &dir.path().join("master.key")).await;
    let key = KeyPair::generate().unwrap();
    let before = authorities.gateway_chain(&key, DAY).unwrap();
    authorities.rotate(&store).await.unwrap();
    let known = authorities.authorities();
    assert_eq!(
        known.iter().map(|a| (a.name.as_str(), a.issues)).collect::<Vec<_>>(),
        [("ca-1", false), ("ca-2", true)]
    );
    let shown = |chain: &str| chain.split_once("-----END").map(|(_, authority)| authority.to_owned());
    assert_eq!(shown(&before), shown(&authorities.gateway_chain(&key, DAY).unwrap()), "still by the first");
    let host = Identity::Agent { cloud: store.identity().0, host: HostId::random(), daemon: Daemon::Compute };
    let wanted = request::certificate_request(&key.serialize_pem()).unwrap();
    let issued = authorities.issue(&wanted, host, DAY).unwrap();
    assert!(authorities.is_of_the_newest(&CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()));
    let old = CertificateDer::from_pem_slice(before.as_bytes()).unwrap();
    assert!(!authorities.is_of_the_newest(&old));
    assert!(!authorities.refresh(&store).await.unwrap(), "nothing has changed since");
}
