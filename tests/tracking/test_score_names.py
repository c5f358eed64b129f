"""What the numbers of a run are called in MLflow, where `python -m ddpm compare` finds them."""

from ddpm.tracking.score_names import flat_scores


def test_each_number_has_the_name_of_its_extractor_score_and_part():
    floor = {"model": 4.0, "real": 5.0, "real_low": 6.0, "real_high": 7.0}
    scores = {
        "extractor": "inception",
        "scores": {"fid": {"value": 1.0, "low": 2.0, "high": 3.0}, "memorisation": None},
        "floor": None,
    }
    alone = {"inception/fid": 1.0, "inception/fid_low": 2.0, "inception/fid_high": 3.0}
    assert flat_scores(scores) == alone
    beside = {"inception/fid_same_n": 4.0, "inception/fid_floor": 5.0}
    assert flat_scores(scores | {"floor": {"scores": {"fid": floor}}}) == alone | beside
