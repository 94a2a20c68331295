//! Instance types.

use cloud_contracts::v1::{GetInstanceTypeRequest, InstanceType, ListInstanceTypesRequest};
use tonic::Status;

use super::{Fetch, Listed, Page, PageOf, Resource, View, yes};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for InstanceType {
    const KIND: &'static str = "type";
    const PLURAL: &'static str = "instance_types";
    const COLUMNS: &'static [&'static str] = &["NAME", "VCPUS", "MEMORY", "DISK", "DEFAULT"];

    fn row(&self, _: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.vcpus.to_string(),
            human::mib(self.memory_mib.into()),
            format!("{} GiB", self.disk_gib),
            yes(self.is_default),
        ]
    }

    fn details(&self, _: View) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("vCPUs", self.vcpus.to_string()),
            ("Memory", human::mib(self.memory_mib.into())),
            ("Disk", format!("{} GiB", self.disk_gib)),
            ("Default", yes(self.is_default)),
        ]
    }
}

impl Fetch for InstanceType {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.types().get_instance_type(ask(GetInstanceTypeRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for InstanceType {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListInstanceTypesRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
        };
        let answer = cloud.types().list_instance_types(ask(request)).await?.into_inner();
        Ok((answer.instance_types, answer.next_page_token))
    }
}
