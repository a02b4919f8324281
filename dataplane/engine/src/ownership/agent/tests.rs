//! What an agent makes of a gateway that is back.

use super::*;

const NOW: Millis = 100_000;

/// An agent that has been told of these gateways.
fn agent(told: &[(&str, u64, State)]) -> AgentSide {
    let mut agent = AgentSide::new(AgentConfig {
        name: "agent-0".into(),
        seed: KeySeed::new([7; 16]),
        decision_wait: 10_000,
        retained_max: 1 << 20,
        decisions_max: 16,
        rules: Rules::ALL,
    });
    hear(&mut agent, told, &[]);
    agent
}

/// The first of these gateways answers a poll.
fn hear(agent: &mut AgentSide, told: &[(&str, u64, State)], losses: &[(&str, u64)]) {
    let fact = |(name, inst, state): &(&str, u64, State)| Fact {
        of: Instance::new(name, *inst),
        state: *state,
    };
    let facts: Arc<[Fact]> = told.iter().map(fact).collect();
    let answer = PollAnswer {
        from: facts[0].of.clone(),
        facts,
        losses: losses.iter().map(|(name, inst)| Instance::new(name, *inst)).collect(),
        decided: Arc::default(),
    };
    agent.on_poll_answer(Req(1), &answer, NOW, &mut Vec::new());
}

fn lost(agent: &AgentSide) -> Vec<(&str, u64)> {
    agent.losses().map(|(lost, _)| (&*lost.name, lost.inst)).collect()
}

#[test]
fn a_gateway_that_is_back_without_a_word_is_lost() {
    let mut agent = agent(&[("gw-0", 1, State::Serving), ("gw-1", 1, State::Serving)]);
    hear(&mut agent, &[("gw-0", 2, State::Joining)], &[]);
    assert_eq!(lost(&agent), [("gw-0", 1)]);
}

#[test]
fn a_gateway_that_was_leaving_and_is_back_is_lost_only_if_its_peers_say_so() {
    let before = [("gw-0", 1, State::Draining), ("gw-1", 1, State::Serving)];
    let mut agent = agent(&before);
    // Its last words went to the other one, which was not asked yet.
    hear(&mut agent, &[("gw-0", 2, State::Joining)], &[]);
    assert_eq!(lost(&agent), []);
    hear(&mut agent, &[("gw-1", 1, State::Serving)], &[("gw-0", 1)]);
    assert_eq!(lost(&agent), [("gw-0", 1)]);
}

#[test]
fn a_gateway_without_peers_that_was_leaving_and_is_back_is_lost() {
    let mut agent = agent(&[("gw-0", 1, State::Draining)]);
    hear(&mut agent, &[("gw-0", 2, State::Joining)], &[]);
    assert_eq!(lost(&agent), [("gw-0", 1)]);
}
