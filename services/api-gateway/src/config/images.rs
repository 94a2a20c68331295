//! The flags of images.

use std::{path::PathBuf, time::Duration};

use crate::adapters::images::{BucketOptions, ImageOptions};

/// The flags of images.
#[derive(Debug, Clone, clap::Args)]
pub struct ImageArgs {
    /// The directory that operators may import images from; without it, they cannot.
    #[arg(long, env = "CLOUD_IMPORT_DIR", value_name = "DIRECTORY")]
    pub import_dir: Option<PathBuf>,
    /// Fetch images also from loopback, link-local and private addresses. Every user can then make the gateway ask the operator's own network.
    #[arg(long, env = "CLOUD_IMPORT_ALLOW_PRIVATE")]
    pub import_allow_private: bool,
    /// How long an import may take, in seconds.
    #[arg(long, env = "CLOUD_IMPORT_TIMEOUT", value_name = "SECONDS", default_value_t = 3600)]
    pub import_timeout: u64,
    /// The largest image file, in bytes.
    #[arg(long, env = "CLOUD_IMAGE_MAX_BYTES", value_name = "BYTES", default_value_t = 64 << 30)]
    pub image_max_bytes: u64,
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
}

impl ImageArgs {
    /// What the image store is told, whose files are in `dir`.
    #[must_use]
    pub fn options(&self, dir: PathBuf) -> ImageOptions {
        ImageOptions {
            dir,
            import_dir: self.import_dir.clone(),
            max_bytes: self.image_max_bytes,
            allow_private: self.import_allow_private,
            timeout: Duration::from_secs(self.import_timeout),
            bucket: self.bucket.options(),
        }
    }
}

/// The flags of a bucket for images.
#[derive(Debug, Clone, clap::Args)]
pub struct BucketArgs {
    /// The bucket of an S3-compatible server that images are kept in, for all gateways of the cloud; by default they are kept in `images` in the
    /// state directory, which then is only a cache.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET", value_name = "NAME", requires = "image_bucket_access_key",
          requires = "image_bucket_secret_file", value_parser = bucket_name)]
    pub image_bucket: Option<String>,
    /// Its server, such as `https://s3.example.org`; by default that of AWS in the region. Only `http://` is not encrypted.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET_ENDPOINT", value_name = "URL", requires = "image_bucket")]
    pub image_bucket_endpoint: Option<String>,
    /// The region that requests are signed for.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET_REGION", value_name = "REGION", default_value = "us-east-1")]
    pub image_bucket_region: String,
    /// What the keys of the objects begin with; the cloud's id and the image's follow.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET_PREFIX", value_name = "PREFIX", default_value = "thecloud")]
    pub image_bucket_prefix: String,
    /// The id of the access key.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET_ACCESS_KEY", value_name = "ID", requires = "image_bucket")]
    pub image_bucket_access_key: Option<String>,
    /// The file with its secret, of mode 600; read at start.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET_SECRET_FILE", value_name = "FILE", requires = "image_bucket")]
    pub image_bucket_secret_file: Option<PathBuf>,
    /// Have the bucket's name in the host name of requests, not in their path.
    #[arg(long, env = "CLOUD_IMAGE_BUCKET_VIRTUAL_HOST")]
    pub image_bucket_virtual_host: bool,
    /// How many bytes of image files are kept on this machine, too: beyond that the least recently used ones are removed. By default all stay that
    /// were needed here once.
    #[arg(long, env = "CLOUD_IMAGE_CACHE_MAX_BYTES", value_name = "BYTES", requires = "image_bucket")]
    pub image_cache_max_bytes: Option<u64>,
}

/// The names that S3 allows (general purpose buckets), save that the servers of others also take capitals and `_`.
fn bucket_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let whole = (3..=63).contains(&text.len()) && text.chars().all(plain);
    match whole && ends(text.chars().next()) && ends(text.chars().next_back()) {
        true => Ok(text.to_owned()),
        false => Err("must be the name of a bucket: 3 to 63 letters, digits, dots and hyphens".to_owned()),
    }
}

impl BucketArgs {
    fn options(&self) -> Option<BucketOptions> {
        Some(BucketOptions {
            bucket: self.image_bucket.clone()?,
            endpoint: self.image_bucket_endpoint.clone(),
            region: self.image_bucket_region.clone(),
            prefix: self.image_bucket_prefix.clone(),
            virtual_host: self.image_bucket_virtual_host,
            access_key: self.image_bucket_access_key.clone()?,
            secret_file: self.image_bucket_secret_file.clone()?,
            cache_max_bytes: self.image_cache_max_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn a_bucket_needs_a_key_and_its_secret() {
        assert!(parse(&[]).unwrap().image_options().bucket.is_none());
        let whole = ["--image-bucket=images", "--image-bucket-access-key=id", "--image-bucket-secret-file=/secret"];
        let bucket = parse(&whole).unwrap().image_options().bucket.unwrap();
        assert_eq!((bucket.bucket.as_str(), bucket.prefix.as_str(), bucket.endpoint), ("images", "thecloud", None));
        for missing in 0..whole.len() {
            let mut rest = whole.to_vec();
            rest.remove(missing);
            assert!(parse(&rest).is_err(), "without {}", whole[missing]);
        }
        assert!(parse(&["--image-cache-max-bytes=1"]).is_err());
        for bad in ["--image-bucket=", "--image-bucket=a/b", "--image-bucket=-ab", "--image-bucket=ab"] {
            assert!(parse(&[bad, whole[1], whole[2]]).is_err(), "{bad}");
        }
    }
}
