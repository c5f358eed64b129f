"""Which GPUs are taken, as PyTorch describes them; there need not be one."""

import pytest
import torch

from ddpm.runtime.devices import choose_device, kind_of_device
from ddpm.runtime.errors import InputError

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of some capability, seen by a PyTorch with kernels for some architectures."""

    def gpu(capability, architectures):
        answers = {
            "is_available": True,
            "device_count": 1,
            "get_arch_list": architectures,
            "get_device_capability": capability,
            "get_device_name": "Tesla V100-SXM2-16GB",
            "set_device": None,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        monkeypatch.setattr(torch.version, "cuda", "13.2")

    return gpu


@pytest.mark.parametrize(
    ("capability", "architectures", "taken"),
    [
        ((7, 5), WHEEL, True),
        ((8, 6), WHEEL, True),
        ((8, 9), WHEEL, True),  # runs what was compiled for an older one of its generation
        ((12, 1), WHEEL, True),
        ((7, 0), WHEEL, False),
        ((6, 1), WHEEL, False),
        ((11, 0), WHEEL, False),  # between two generations
        ((7, 2), ["sm_75"], False),  # older than what was compiled, in the same generation
        ((11, 0), ["sm_90a", "compute_90"], True),  # the driver compiles what is newer
        ((8, 0), ["sm_90", "compute_90"], False),
        ((7, 0), [], True),  # nothing is known
    ],
)
def test_auto_takes_a_gpu_that_the_installed_pytorch_has_kernels_for(gpu, capsys, capability, architectures, taken):
    gpu(capability, architectures)
    assert choose_device("auto") == (torch.device("cuda", 0) if taken else torch.device("cpu"))
    assert kind_of_device("auto").type == ("cuda" if taken else "cpu")
    said = capsys.readouterr().err
    assert ("so this runs on the CPU" in said) is not taken
    if not taken:
        assert f"has no kernels for the Tesla V100-SXM2-16GB, which has compute capability {capability[0]}." in said


def test_cuda_is_refused_where_it_would_end_in_a_traceback(gpu):
    gpu((7, 0), WHEEL)
    with pytest.raises(InputError, match=r"device: cuda, but this PyTorch .* capability 7\.0; install a PyTorch that"):
        choose_device("cuda")


def test_other_makers_gpus_are_not_compared_with_names_of_nvidias(gpu, monkeypatch):
    gpu((9, 0), ["gfx90a"])
    monkeypatch.setattr(torch.version, "cuda", None)
    assert choose_device("auto").type == "cuda"
