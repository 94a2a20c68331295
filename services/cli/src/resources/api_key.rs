//! API keys.

use cloud_contracts::v1::{ApiKey, GetApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, View, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for ApiKey {
    const KIND: &'static str = "api-key";
    const PLURAL: &'static str = "api_keys";
    const COLUMNS: &'static [&'static str] = &["NAME", "PREFIX", "ROLE", "PROJECT", "EXPIRES", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.prefix.clone(),
            self.role().as_str_name().to_owned(),
            self.project.clone(),
            self.expires_at.map(|at| human::day(&at)).unwrap_or_default(),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Project", self.project.clone()),
            ("Prefix", self.prefix.clone()),
            ("Role", self.role().as_str_name().to_owned()),
            ("Expires", self.expires_at.map_or("never".to_owned(), |at| human::day(&at))),
        ];
        lines.extend(times(view, [("Created", self.created_at.as_ref()), ("Revoked", self.revoked_at.as_ref())]));
        lines
    }
}

impl Fetch for ApiKey {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.api_keys().get_api_key(ask(GetApiKeyRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for ApiKey {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListApiKeysRequest { page_size: page.size, page_token: page.token, ..Default::default() };
        let answer = cloud.api_keys().list_api_keys(ask(request)).await?.into_inner();
        Ok((answer.api_keys, answer.next_page_token))
    }
}

impl Delete for ApiKey {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = RevokeApiKeyRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.api_keys().revoke_api_key(ask(request)).await?.into_inner())
    }
}
