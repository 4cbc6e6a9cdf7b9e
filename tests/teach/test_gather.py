"""Lists gathered over two processes: values, and gradients as if one process had it all."""

from __future__ import annotations

import multiprocessing

import gather_worker
import pytest
import torch

from perceptloss.errors import InputError
from perceptloss.teach.objectives.gather import gather_list


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gather")
    # one import of torch for both; a plain fork would inherit the threads of autograd
    multiprocessing.set_forkserver_preload(["torch", "torch.distributed"])
    torch.multiprocessing.start_processes(gather_worker.run, args=(2, str(folder)), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_parameters_move_as_if_one_process_had_the_whole_batch(found):
    net = gather_worker.critic()
    x, y = gather_worker.data()
    gather_worker.loss(net(x), y).backward()
    expected = gather_worker.gradient(net)
    for rank in found:
        assert torch.allclose(rank["gradient"], expected, rtol=1e-5, atol=1e-7)
    apart = []
    for part, labels in zip(x.split(gather_worker.SIZES), y.split(gather_worker.SIZES), strict=True):
        net.zero_grad()
        gather_worker.loss(net(part), labels).backward()
        apart.append(gather_worker.gradient(net))
    assert not torch.allclose(torch.stack(apart).mean(0), expected, rtol=0.1)


def test_gradients_of_different_losses_add_up(found):
    # rank r multiplies element i of the whole by i (r + 1), so element i gets 3 i; held by bfloat16
    whole = torch.cat([rank["half"] for rank in found])
    assert whole.dtype == torch.bfloat16
    assert whole.tolist() == (3 * torch.arange(7.0)[:, None].expand(7, 4)).tolist()


def test_a_process_without_a_graph_does_not_stop_the_others(found):
    x, _ = gather_worker.data()
    own = x.split(gather_worker.SIZES)[0]
    for rank in found:
        assert torch.equal(rank["lonely"], own)
    assert torch.allclose(found[0]["lonely gradient"], 4 * own)  # both processes took the loss


def test_all_processes_have_the_same_list_in_the_order_of_their_ranks(found):
    x, _ = gather_worker.data()
    for rank in found:
        assert rank["numbers"].tolist() == [0, 1, 2, 3, 4, 10, 11] and rank["numbers"].dtype == torch.int64
        assert rank["flags"].tolist() == [True, True, False] and rank["flags"].dtype == torch.bool
        assert rank["nothing"].shape == (0,)
        assert torch.equal(rank["no graph"], x) and not rank["no graph"].requires_grad


def test_unlike_lists_are_refused_by_all_processes(found):
    for rank in found:
        shapes, types = rank["errors"]
        assert "rank 0: 1 numbers of torch.float32 per element" in shapes and "rank 1: 2 numbers" in shapes
        assert "rank 1: 1 numbers of torch.float64" in types


def test_one_process_gets_its_own_list(found):
    _, y = gather_worker.data()
    assert torch.equal(found[0]["alone"], y[: gather_worker.SIZES[0]])
    t = torch.rand(3, requires_grad=True)
    assert gather_list(t) is t


@pytest.mark.parametrize("wrong", [torch.tensor(1.0), torch.zeros(3, dtype=torch.complex64)])
def test_what_is_no_list_of_numbers(wrong):
    with pytest.raises(InputError, match="expected a list"):
        gather_list(wrong)
