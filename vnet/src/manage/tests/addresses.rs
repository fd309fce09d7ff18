//! Prefixes and addresses that are chosen, and those that are not.

use super::*;

fn plain(text: &str) -> NetworkRequest {
    NetworkRequest { subnets: Vec::new(), ..network(text, "10.1.0.0/24") }
}

fn on(text: &str, network: &str, addresses: &[&str]) -> EndpointRequest {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let place = Place { addresses, ..Place::on(name(network)) };
    EndpointRequest { places: vec![place], ..endpoint(text) }
}

#[tokio::test]
async fn networks_without_a_wish_get_prefixes_that_nobody_has() {
    let world = World::up().await;
    world.fake.routes.borrow_mut().push(route("172.24.0.0/24", "eth0"));
    let subnets = |network: &crate::spec::Network| -> Vec<String> {
        network.segments.subnets().map(|subnet| subnet.to_string()).collect()
    };
    let red = world.manager().create_network(&plain("red")).await.unwrap().value;
    let blue = world.manager().create_network(&plain("blue")).await.unwrap().value;
    assert_eq!((&subnets(&red)[0][..], &subnets(&blue)[0][..]), ("172.24.1.0/24", "172.24.2.0/24"));
    assert_ne!(subnets(&red)[1], subnets(&blue)[1]);
    assert_eq!(world.manager().create_network(&plain("red")).await.unwrap().ops, [], "the same again");
    let text = world.exported();
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, []);
    // A file may leave it open as well.
    world.apply("[networks.green]\n[networks.red]\n", Unnamed::Stays).await.unwrap();
    assert!(world.exported().contains("\"172.24.3.0/24\""), "{}", world.exported());
    assert_eq!(world.apply("[networks.green]\n", Unnamed::Stays).await.unwrap().ops, []);
}

#[tokio::test]
async fn an_instance_whose_prefix_is_in_use_says_by_what_and_names_others() {
    let world = World::new();
    world.fake.routes.borrow_mut().push(route("192.168.0.0/16", "eth1"));
    for error in [message(world.bring_up(Mode::Apply).await), message(world.apply("", Unnamed::Stays).await)]
    {
        let words =
            ["192.168.0.0/24", "192.168.0.0/16 over eth1", "vnet up --subnet 172.24.0.0/24 --subnet fd"];
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
    }
    assert!(!world.instance().run_dir().exists());
    let request = UpRequest { subnets: vec!["172.24.0.0/24".parse().unwrap()], ..UpRequest::default() };
    world.bring_up_as(&request, Mode::Apply).await.unwrap();
}

#[tokio::test]
async fn addresses_come_from_the_range_and_reserved_ones_only_for_the_asking() {
    let world = World::up().await;
    let blue = NetworkRequest {
        ranges: vec!["10.1.0.128/30".parse().unwrap()],
        reserved: vec!["10.1.0.129".parse().unwrap(), "10.1.0.7".parse().unwrap()],
        ..network("blue", "10.1.0.0/24")
    };
    world.manager().create_network(&blue).await.unwrap();
    assert_eq!(world.manager().create_network(&blue).await.unwrap().ops, []);
    let create = async |request: EndpointRequest| {
        let endpoint = world.manager().create_endpoint(&request).await?.value;
        let addr = endpoint.addresses().next().unwrap().to_string();
        Ok::<_, Error>(addr)
    };
    assert_eq!(create(on("a", "blue", &[])).await.unwrap(), "10.1.0.128");
    assert_eq!(create(on("b", "blue", &[])).await.unwrap(), "10.1.0.130");
    assert_eq!(create(on("c", "blue", &[])).await.unwrap(), "10.1.0.131");
    let error = message(create(on("d", "blue", &[])).await);
    assert!(
        error.contains("10.1.0.128/30") && error.contains("is full") && error.contains("--ip"),
        "{error}"
    );
    for addr in ["10.1.0.129", "10.1.0.7", "10.1.0.200"] {
        assert_eq!(create(on(&format!("x{}", &addr[7..]), "blue", &[addr])).await.unwrap(), addr);
    }
    let other = NetworkRequest { ranges: Vec::new(), ..blue.clone() };
    let error = message(world.manager().create_network(&other).await);
    assert!(error.contains("range 10.1.0.128/30"), "{error}");
    let text = world.exported();
    assert!(text.contains("ranges = [\"10.1.0.128/30\"]") && text.contains("reserved = "), "{text}");
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, []);
    for (ranges, reserved, words) in [
        (&["10.9.0.0/24"][..], &[][..], "it is no part of 10.2.0.0/24"),
        (&[], &["10.2.0.1"][..], "it is the gateway"),
    ] {
        let request = NetworkRequest {
            ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
            reserved: reserved.iter().map(|text| text.parse().unwrap()).collect(),
            ..network("green", "10.2.0.0/24")
        };
        assert!(message(world.manager().create_network(&request).await).contains(words), "{words}");
    }
}
