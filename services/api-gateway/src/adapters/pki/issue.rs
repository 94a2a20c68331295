//! Making certificates.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cloud_core::{model::Timestamp, ports::Issued};
use cloud_domain::{CloudId, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How much earlier than now a certificate begins to count: clocks of hosts differ.
const SKEW: Duration = Duration::from_secs(300);

/// An authority whose key is known.
pub(super) struct Signer {
    pub(super) certificate: CertificateDer<'static>,
    /// The same, in PEM.
    pub(super) pem: String,
    pub(super) key: KeyPair,
}

/// A new authority: its certificate and its key in PEM.
pub(super) fn new_authority(cloud: CloudId, number: u32, lifetime: Duration) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    valid(&mut params, lifetime);
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    // Certificates name their authority by this; it differs for each.
    params.distinguished_name.push(DnType::CommonName, format!("The Cloud CA {number}"));
    params.distinguished_name.push(DnType::OrganizationName, cloud.to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Who a certificate is for.
pub(super) enum Subject<'a> {
    /// A daemon, or a gateway.
    Daemon(Identity),
    /// A server that clients know by its names and addresses.
    Server(&'a [String]),
}

/// A certificate for a key.
pub(super) fn issue(
    signer: &Signer,
    key: &impl PublicKeyData,
    subject: &Subject<'_>,
    lifetime: Duration,
) -> Result<Issued, rcgen::Error> {
    let mut params = match subject {
        Subject::Daemon(_) => CertificateParams::default(),
        Subject::Server(names) => CertificateParams::new(names.to_vec())?,
    };
    let name = match subject {
        Subject::Daemon(Identity::Gateway { .. }) | Subject::Server(_) => "gateway",
        Subject::Daemon(Identity::Agent { daemon, .. }) => daemon.as_str(),
    };
    if let Subject::Daemon(identity) = subject {
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject {
        Subject::Daemon(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Subject::Server(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
    };
    params.use_authority_key_identifier_extension = true;
    let until = valid(&mut params, lifetime);
    let number = serial();
    let serial = hex::encode(number.to_bytes());
    params.serial_number = Some(number);
    let issuer = Issuer::from_ca_cert_der(&signer.certificate, &signer.key)?;
    let certificate = params.signed_by(key, &issuer)?.pem();
    Ok(Issued { certificate, serial, expires_at: until })
}

/// From a little before now on, for this long.
fn valid(params: &mut CertificateParams, lifetime: Duration) -> Timestamp {
    let now = SystemTime::now();
    // Whole seconds: a certificate has no fractions.
    let until = OffsetDateTime::from(now + lifetime).replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = (now - SKEW.min(lifetime / 20)).into();
    params.not_after = until;
    Timestamp(until.unix_timestamp().saturating_mul(1_000_000))
}

/// 126 random bits, in 16 bytes whichever they are.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}

/// Whether a certificate says that it was issued by this authority.
pub(super) fn issued_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    match (X509Certificate::from_der(certificate), X509Certificate::from_der(authority)) {
        (Ok((_, certificate)), Ok((_, authority))) => certificate.issuer().as_raw() == authority.subject().as_raw(),
        _ => false,
    }
}

/// Whether a key is an authority's.
pub(super) fn belongs(authority: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    let (_, parsed) =
        X509Certificate::from_der(authority).map_err(|e| format!("the certificate cannot be read: {e}"))?;
    if !parsed.is_ca() {
        return Err("the certificate is none of an authority".to_owned());
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err("the key is not the certificate's".to_owned());
    }
    Ok(())
}

/// A certificate in PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
