use proptest::prelude::*;

use super::*;
use crate::core::{
    fixtures::{sample, two_vpcs},
    pipeline::vpc_rules,
};

fn sets() -> impl Strategy<Value = (FlowSet, FlowSet)> {
    // Few keys, cookies and actions, so that sets overlap in every way.
    let flow = (0_u8..3, 0_u16..3, 0_u64..3, 0_u8..3).prop_map(|(table, priority, cookie, action)| {
        let key = FlowKey::new(table, priority, &mut ["ip".to_owned()]);
        (key, FlowBody { cookie: Cookie(cookie), actions: format!("goto_table:{action}") })
    });
    let set = prop::collection::btree_map(any::<u8>(), flow, 0..8);
    let set = set.prop_map(|map| map.into_values().collect::<FlowSet>());
    (set.clone(), set)
}

proptest! {
    #[test]
    fn a_change_leads_from_one_to_the_other((have, want) in sets()) {
        let change = diff(&have, &want);
        let mut set = have.clone();
        change.apply(&mut set);
        prop_assert_eq!(&set, &want);
        prop_assert!(diff(&set, &want).is_empty());
        let touched: usize = change.deletes.len() + change.adds.len();
        let same = have.iter().filter(|(key, body)| want.get(*key) == Some(*body)).count();
        prop_assert!(touched + 2 * same <= have.len() + want.len(), "a flow that stays was touched");
    }

    #[test]
    fn rules_have_different_keys([one, two] in two_vpcs()) {
        let rules = [vpc_rules(&one.0, &one.1), vpc_rules(&two.0, &two.1)].concat();
        prop_assert_eq!(flow_set(&rules).len(), rules.len());
    }
}

#[test]
fn a_delete_spares_a_flow_that_took_the_place() {
    let (slice, plugged) = sample();
    let mut set = flow_set(&vpc_rules(&slice, &plugged));
    let change = diff(&set, &FlowSet::new());
    let (key, body) = set.iter_mut().next().unwrap();
    body.cookie = Cookie(0x99);
    let key = key.clone();
    change.apply(&mut set);
    assert_eq!(set.keys().collect::<Vec<_>>(), [&key]);
}
