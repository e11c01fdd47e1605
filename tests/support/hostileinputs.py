"""Which test stands for which kind of hostile layer, manifest or request. `tests/unit/test_hostile_inputs.py`
holds it to what there is.
"""

from __future__ import annotations

UNPACK = "kernel/test_layer_unpack.py"
HOSTILE = "kernel/test_hostile_layers.py"
BREAKOUTS = "kernel/test_layer_breakouts.py"
TAR = "unit/test_tarstream.py"
MANIFEST = "unit/test_image_manifest.py"
PUSH = "component/registry/test_push.py"
PULL = "component/registry/test_pull.py"
DISCOVERY = "component/registry/test_discovery.py"
CLIENT = "component/test_registry_client.py"
DOCUMENTS = "component/test_hostile_documents.py"
SERVER = "component/registry/test_hostile.py"
REQUESTS = "component/registry/test_hostile_requests.py"

_LAYER = f"{UNPACK}::test_hostile_layer_is_refused_in_one_line_and_reaches_nothing"
_ARCHIVE = f"{TAR}::test_hostile_archive_is_refused_in_one_line"
_OUTSIDE = f"{HOSTILE}::test_malformed_archive_changes_nothing_outside"
_MANIFEST = f"{MANIFEST}::test_hostile_manifest_is_refused_in_one_line"
_DISK = f"{DOCUMENTS}::test_hostile_manifest_of_a_registry_leaves_the_disk_as_it_was"
_LARGEST = f"{DOCUMENTS}::test_largest_document_of_any_kind_costs_bounded_memory_and_time"
_CONFIG = f"{MANIFEST}::test_hostile_configuration_is_refused_in_one_line"

HOSTILE_INPUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "B38": (
        "names that climb, are absolute or empty",
        (_LAYER, f"{UNPACK}::test_names_are_cleaned_by_their_letters"),
    ),
    "B39": (
        "a file through a link",
        (
            f"{UNPACK}::test_file_through_a_link_lands_inside",
            f"{BREAKOUTS}::test_link_goes_where_containerd_takes_it",
        ),
    ),
    "B40": (
        "hard links out, to links, to what comes, to themselves",
        (_LAYER, f"{BREAKOUTS}::test_breakout_that_docker_knows_is_refused_or_stays_inside"),
    ),
    "B41": ("a root that is a link or a file", (_LAYER,)),
    "B42": ("one kind over another", (f"{UNPACK}::test_later_members_replace_earlier_ones_of_any_kind",)),
    "B43": ("a mode through a link", (f"{HOSTILE}::test_mode_changed_by_a_link_is_not_the_victims",)),
    "B44": (
        "devices, sockets, unknown types",
        (
            _LAYER,
            f"{HOSTILE}::test_member_of_an_unknown_type_is_refused",
            f"{HOSTILE}::test_socket_of_an_archive_is_none_of_a_tars_types",
        ),
    ),
    "B45": (
        "setuid, capabilities, the driver's attributes",
        (f"{UNPACK}::test_attributes_are_those_of_the_member",),
    ),
    "B46": (
        "whiteouts",
        (
            f"{BREAKOUTS}::test_whiteout_hides_what_it_names_and_nothing_else",
            f"{BREAKOUTS}::test_whiteout_of_a_folder_by_its_dots_is_refused",
        ),
    ),
    "B47": (
        "pax records",
        (
            _ARCHIVE,
            _OUTSIDE,
            f"{HOSTILE}::test_name_of_any_bytes_is_that_name",
            f"{TAR}::test_pax_record_without_a_value_is_as_if_never_given",
        ),
    ),
    "B48": (
        "GNU's long names",
        (
            _ARCHIVE,
            f"{HOSTILE}::test_many_long_names_of_one_member_are_bounded",
            f"{HOSTILE}::test_old_folder_with_a_long_name_and_content_is_read_as_go_reads_it",
        ),
    ),
    "B49": ("sizes", (_ARCHIVE, _OUTSIDE)),
    "B50": ("maps of sparse files", (_ARCHIVE, _OUTSIDE, f"{UNPACK}::test_bombs_end_at_the_limit")),
    "B51": (
        "damage, ends, what follows them",
        (_ARCHIVE, _OUTSIDE, f"{TAR}::test_end_is_zero_blocks_or_the_streams_end"),
    ),
    "B52": (
        "one name very often, twins by case",
        (
            f"{HOSTILE}::test_one_name_a_hundred_thousand_times_is_one_file",
            f"{UNPACK}::test_case_and_unicode_twins_stay_apart",
        ),
    ),
    "B53": (
        "depth",
        (
            _LAYER,
            f"{HOSTILE}::test_folder_deeper_than_any_is_refused",
            f"{HOSTILE}::test_deep_folders_in_turn_cost_little",
            f"{HOSTILE}::test_deep_folders_that_are_to_be_found_again_each_time_are_refused",
        ),
    ),
    "B54": (
        "owners and times",
        (
            _LAYER,
            f"{UNPACK}::test_times_before_1970_and_far_away_are_kept_or_bounded",
            f"{TAR}::test_owner_is_the_number_whatever_the_names_are",
        ),
    ),
    "B55": (
        "compression",
        (
            f"{HOSTILE}::test_bomb_of_any_compression_ends_at_the_limit",
            f"{HOSTILE}::test_dictionary_of_xz_is_bounded",
            f"{UNPACK}::test_zstd_window_beyond_the_limit_is_refused",
            f"{HOSTILE}::test_layer_in_another_compression_than_its_media_type_is_read_by_what_it_is",
        ),
    ),
    "B56": (
        "content that is not its diff id",
        (
            f"{UNPACK}::test_content_that_is_not_its_diff_id_is_refused",
            f"{HOSTILE}::test_config_of_other_layers_than_there_are_is_refused",
        ),
    ),
    "B57": (
        "blobs of another size",
        (
            "component/test_registry_hostile.py::test_manifest_that_lies_about_a_size_is_found_out",
            f"{DOCUMENTS}::test_part_of_another_size_than_it_was_announced_with_is_refused",
        ),
    ),
    "B58": (
        "very many files",
        (
            f"{UNPACK}::test_too_many_files_end_at_the_limit",
            f"{HOSTILE}::test_very_many_empty_files_end_at_the_limit",
            f"{HOSTILE}::test_folders_with_very_long_names_take_bounded_memory",
        ),
    ),
    "B59": (
        "mount points that are links",
        (
            f"{HOSTILE}::test_container_whose_mount_points_are_links_reaches_nothing_outside",
            "component/test_inroot.py::test_read_file_link_outside_stays_inside",
        ),
    ),
    "B60": ("names of our own files", (f"{HOSTILE}::test_names_of_our_own_files_stay_inside",)),
    "B61": ("attributes", (_LAYER, f"{HOSTILE}::test_very_many_attributes_are_kept_or_refused")),
    "B62": (
        "parents that come late",
        (f"{HOSTILE}::test_parent_that_comes_after_its_children_has_the_last_word",),
    ),
    "B63": (
        "documents of two kinds",
        (_MANIFEST, _DISK, f"{MANIFEST}::test_manifest_that_comes_as_another_type_is_refused"),
    ),
    "B64": ("JSON", (_MANIFEST, _DISK, _LARGEST)),
    "B65": ("digests", (_MANIFEST, _DISK, "unit/test_image_reference.py::test_digest_is_strict")),
    "B66": ("sizes in manifests", (_MANIFEST, _DISK)),
    "B67": (
        "numbers of layers",
        (
            _MANIFEST,
            _DISK,
            _LARGEST,
            f"{HOSTILE}::test_config_of_other_layers_than_there_are_is_refused",
            f"{HOSTILE}::test_one_layer_very_often_is_an_image",
        ),
    ),
    "B68": ("indexes of indexes", (f"{CLIENT}::test_resolve_of_an_index_that_names_itself_ends",)),
    "B69": (
        "platforms",
        (
            f"{MANIFEST}::test_choice_without_the_platform_says_what_there_is",
            f"{MANIFEST}::test_choice_is_the_platform_and_its_best_variant",
        ),
    ),
    "B70": (
        "configurations",
        (
            _CONFIG,
            _LARGEST,
            f"{DOCUMENTS}::test_hostile_configuration_of_a_registry_or_an_archive_leaves_the_disk_as_it_was",
            f"{MANIFEST}::test_configuration_of_nulls_is_an_empty_one",
        ),
    ),
    "B71": ("layers from elsewhere", (_MANIFEST, _DISK)),
    "B72": ("schema 1, encrypted layers, artifacts", (_MANIFEST, _DISK)),
    "B73": (
        "a tag that moves",
        (
            f"{CLIENT}::test_resolve_gives_the_verified_documents_and_pins_the_digest",
            f"{DOCUMENTS}::test_tag_that_moves_between_requests_is_one_image_by_its_own_digest",
        ),
    ),
    "B74": (
        "times and histories",
        (
            f"{MANIFEST}::test_time_of_creation_that_is_none_is_not_known",
            f"{MANIFEST}::test_history_of_another_length_than_the_layers_is_only_told",
        ),
    ),
    "B75": (
        "pushes of another digest",
        (f"{PUSH}::test_end6_put_of_another_digest_is_400_and_ends_the_upload",),
    ),
    "B76": (
        "chunks out of order",
        (
            f"{PUSH}::test_end5_chunk_out_of_order_is_416_and_changes_nothing",
            f"{PUSH}::test_end5_content_range_that_is_none_is_400",
        ),
    ),
    "B77": (
        "one upload, several clients",
        (
            f"{SERVER}::test_two_writers_of_one_upload_do_not_mix",
            f"{REQUESTS}::test_upload_that_is_finished_or_cancelled_twice_is_404",
            "component/registry/test_collecting.py::test_upload_that_nobody_goes_on_with_is_dropped",
        ),
    ),
    "B78": (
        "missing, deleted and foreign blobs",
        (
            f"{PUSH}::test_end7_manifest_whose_blobs_are_missing_is_404",
            f"{PUSH}::test_end11_mount_needs_the_right_to_pull_from_the_source",
            f"{REQUESTS}::test_mount_by_nobody_is_refused_and_makes_nothing",
            f"{REQUESTS}::test_blob_that_is_deleted_while_it_is_pulled_arrives_whole",
        ),
    ),
    "B79": (
        "pages",
        (
            f"{DISCOVERY}::test_end8b_number_that_is_none_is_400",
            f"{DISCOVERY}::test_end8b_number_that_is_very_large_is_bounded",
            f"{DISCOVERY}::test_end8b_last_of_any_bytes_begins_a_list_or_is_400",
        ),
    ),
    "B80": (
        "bodies without end or beginning",
        (
            f"{SERVER}::test_endless_manifest_is_413",
            f"{REQUESTS}::test_body_that_is_announced_and_never_comes_is_408",
        ),
    ),
    "B81": (
        "names of repositories and tags",
        (
            f"{SERVER}::test_path_that_leads_out_finds_nothing",
            f"{PUSH}::test_repository_name_that_is_none_is_400",
            f"{PUSH}::test_end7_tag_that_is_none_is_400",
        ),
    ),
    "B82": (
        "referrers",
        (
            f"{PUSH}::test_end7_subject_is_told_of_and_need_not_exist",
            f"{DISCOVERY}::test_end12a_many_referrers_come_in_pages",
            f"{REQUESTS}::test_a_hundred_thousand_referrers_are_paged_and_quick",
        ),
    ),
    "B83": (
        "ranges",
        (
            f"{PULL}::test_end2_range_of_a_blob_is_sent_as_206",
            f"{PULL}::test_end2_range_that_is_none_sends_all",
            f"{PULL}::test_end2_range_beyond_the_blob_is_416",
            f"{REQUESTS}::test_part_of_another_state_of_a_blob_is_not_sent",
        ),
    ),
}
"""By number: what it is, and its tests."""
