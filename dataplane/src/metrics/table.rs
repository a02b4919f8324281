//! Every name of a metric, with what it counts.

use prometheus_client::metrics::MetricType;

use super::Metric;

table! {
    ACCEPTED = Counter "otelcol_receiver_accepted_spans" ["receiver"]
        "Spans taken from senders";
    REFUSED = Counter "otelcol_receiver_refused_spans" ["receiver", "reason"]
        "Spans that senders were told were not taken";
    QUEUE_SIZE = Gauge "otelcol_exporter_queue_size" ["exporter"]
        "Bytes in the queue of an exporter, before compression";
    QUEUE_CAPACITY = Gauge "otelcol_exporter_queue_capacity" ["exporter"]
        "Bytes that fit into the queue of an exporter";
    SENT = Counter "otelcol_exporter_sent_spans" ["exporter"]
        "Spans that a backend acknowledged";
    SEND_FAILED = Counter "otelcol_exporter_send_failed_spans" ["exporter", "reason"]
        "Spans that an exporter gave up";
    DROPPED = Counter "otelcol_processor_dropped_spans" ["processor", "reason"]
        "Spans lost after they were accepted";
    LEFT_OUT = Counter "ringtail_left_out_fields" ["reason"]
        "Fields of accepted requests that are not passed on, because no span owns them";
    BACKENDS = Gauge "otelcol_loadbalancer_num_backends" ["resolver"]
        "Gateways in the ring";
    BACKEND_UPDATES = Counter "otelcol_loadbalancer_num_backend_updates" ["resolver"]
        "Changes of the ring";
    BACKEND_OUTCOME = Counter "otelcol_loadbalancer_backend_outcome" ["endpoint", "success"]
        "Requests to gateways";
    BACKEND_LATENCY = Histogram "otelcol_loadbalancer_backend_latency" ["endpoint"]
        "Milliseconds until a gateway answered a request";
    POLICY_TRACES = Counter "otelcol_processor_tail_sampling_count_traces_sampled"
        ["policy", "sampled", "decision"] "Traces that a policy decided";
    SHADOW_TRACES = Counter "ringtail_shadow_traces" ["policy"]
        "Traces that a policy with role Shadow would have decided otherwise, had it a vote";
    GLOBAL_TRACES = Counter "otelcol_processor_tail_sampling_global_count_traces_sampled"
        ["sampled", "decision"] "Traces decided";
    NEW_TRACES = Counter "otelcol_processor_tail_sampling_new_trace_id_received" []
        "Traces first seen";
    TRACES_ON_MEMORY = Gauge "otelcol_processor_tail_sampling_sampling_traces_on_memory" []
        "Traces that wait for their decision";
    LATE_SPANS = Counter "otelcol_processor_tail_sampling_early_releases_from_cache_decision" ["sampled"]
        "Spans that came after the decision on their trace and followed it";
    EARLY = Counter "ringtail_early_decisions" ["reason"]
        "Traces decided before their time";
    BUFFER_BYTES = Gauge "ringtail_buffer_bytes" []
        "Resident bytes of undecided traces: spans, index, headers, spare segments";
    BUFFER_LIMIT = Gauge "ringtail_buffer_limit_bytes" []
        "Budget of the buffer";
    BUFFER_UTILIZATION = Gauge "ringtail_buffer_utilization_percent" []
        "Resident bytes of undecided traces, of their budget; autoscalers go by it";
    HELD = Gauge "ringtail_held_spans" []
        "Spans in memory";
    DUPLICATES = Counter "ringtail_duplicate_spans" []
        "Spans that came twice with the same content";
    OWNERSHIP = Counter "ringtail_ownership_events" ["event"]
        "What keeping traces whole took: traces passed on, handed over, decided alone, and so on";
    HANDED_OVER = Counter "ringtail_handed_over_spans" []
        "Spans of undecided traces sent to their new owner";
    HAND_OVER_BYTES = Counter "ringtail_hand_over_bytes" []
        "Bytes of undecided traces sent to their new owner, what was sent twice included";
    HAND_OVER_SECONDS = Counter "ringtail_hand_over_seconds" []
        "For how long something that belongs to other gateways was here or on its way from here";
    FENCES = Counter "ringtail_fences" ["cause"]
        "Times that a serving gateway decided nothing, by what it waited for";
    FENCE_SECONDS = Counter "ringtail_fence_seconds" ["cause"]
        "For how long a serving gateway decided nothing, by what it waited for";
    FENCE_TIMEOUTS = Counter "ringtail_fence_timeouts" ["cause"]
        "Gateways, and losses, that decisions went on without after ten seconds";
    REPEATED = Counter "ringtail_repeated_spans" []
        "Spans that were sent again and had been exported before; they are among the duplicates";
    CONDITION_FAILURES = Counter "ringtail_condition_failures" []
        "Conditions of policies that a span's values could not answer, with errorMode Ignore or Propagate";
    EVACUATED = Counter "ringtail_segments_evacuated" []
        "Segments freed by moving the few spans left in them";
    TURN_SECONDS = Gauge "ringtail_decision_turn_seconds" ["shard"]
        "How long the last turn of decisions took";
    OUT = Counter "ringtail_out_spans" []
        "Spans that gateways acknowledged";
    RETAINED = Gauge "ringtail_retained_bytes" []
        "Bytes of delivered spans that would be sent again if their gateway were lost";
    REPLAYED = Counter "ringtail_replayed_traces" []
        "Traces of batches sent again because a gateway was lost";
    UNPROTECTED = Counter "ringtail_unprotected_traces" []
        "Traces of batches let go before their time, for their bytes: a lost gateway loses them";
    UNPROTECTED_SPANS = Counter "ringtail_unprotected_spans" []
        "Spans of batches let go before their time, for their bytes: a lost gateway loses them";
    REROUTED = Counter "ringtail_rerouted_spans" []
        "Spans sent to a lower choice because their owner took none";
    LINK_BYTES = Gauge "ringtail_link_queue_bytes" ["endpoint"]
        "Bytes that wait for a gateway or are under way to it";
    LINK_SENT = Counter "ringtail_link_sent_bytes" ["endpoint"]
        "Bytes sent to a gateway, as they went out";
    SEND_LIMIT = Gauge "ringtail_send_limit_bytes" []
        "Budget of spans on their way to gateways";
    SEND_BYTES = Gauge "ringtail_send_bytes" []
        "Bytes of spans on their way to gateways, open batches included";
    CANDIDATES = Gauge "ringtail_discovery_candidates" ["resolver"]
        "Addresses where gateways may be, as discovery lists them";
    UNLISTED = Gauge "ringtail_discovery_left_out" ["resolver"]
        "Addresses that are listed and not kept in touch with, because there are too many";
    DRAINING = Gauge "ringtail_discovery_draining" []
        "Gateways on their way out";
    FOREIGN = Gauge "ringtail_discovery_foreign" []
        "Candidates not taken as gateways: another seed, or no gateway of ours";
    WATCH_FAILURES = Counter "ringtail_discovery_watch_failures" ["resource"]
        "Lists and watches at the API server that failed";
    WATCH_REQUESTS = Counter "ringtail_discovery_requests" ["resource"]
        "Requests to the API server";
    STALE_SECONDS = Gauge "ringtail_discovery_stale_seconds" ["resource"]
        "For how long the API server could not be followed; 0 while it can";
    HANDSHAKES = Counter "ringtail_peer_handshakes" ["outcome"]
        "Connections to the peer port, by what became of the handshake";
    TURNED_AWAY = Counter "ringtail_peer_turned_away" []
        "Calls of the peer protocol to the port of clients, refused";
    CERTIFICATES = Counter "ringtail_peer_certificates" ["outcome"]
        "Newer certificates, by whether they are used (applied, refused)";
    OBSERVERS = Gauge "ringtail_ring_observers" ["agreeing"]
        "Processes that stamped a digest on what they sent lately, by whether it is this gateway's";
    CONFIG_RELOADS = Counter "ringtail_config_reloads" ["outcome"]
        "Newer manifests, by whether they are used (applied, refused)";
    CONFIG_REFUSED = Gauge "ringtail_config_refused" []
        "1 while the newest manifest is refused and an older one is in force";
    CONFIG = Gauge "ringtail_config_hash" ["hash"]
        "1 for the hash of the manifest in force";
    RING = Gauge "ringtail_ring_digest" ["digest"]
        "1 for the digest of the view in use";
}
