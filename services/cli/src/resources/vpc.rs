//! VPCs.

use cloud_contracts::v1::{DeleteVpcRequest, GetVpcRequest, ListVpcsRequest, Vpc};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, View, labels, times, yes};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Vpc {
    const KIND: &'static str = "vpc";
    const PLURAL: &'static str = "vpcs";
    const COLUMNS: &'static [&'static str] = &["NAME", "CIDR", "VNI", "DEFAULT", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.cidr.clone(),
            self.vni.to_string(),
            yes(self.is_default),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Project", self.project.clone()),
            ("CIDR", self.cidr.clone()),
            ("VNI", self.vni.to_string()),
            ("Default", yes(self.is_default)),
            ("Labels", labels(&self.labels)),
        ];
        lines.extend(times(
            view,
            [
                ("Created", self.created_at.as_ref()),
                ("Updated", self.updated_at.as_ref()),
                ("Deleted", self.deleted_at.as_ref()),
            ],
        ));
        lines
    }
}

impl Fetch for Vpc {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.vpcs().get_vpc(ask(GetVpcRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Vpc {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListVpcsRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
            show_deleted: page.show_deleted,
        };
        let answer = cloud.vpcs().list_vpcs(ask(request)).await?.into_inner();
        Ok((answer.vpcs, answer.next_page_token))
    }
}

impl Delete for Vpc {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = DeleteVpcRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.vpcs().delete_vpc(ask(request)).await?.into_inner())
    }
}
