from bench.trick import At, Claim, Scores, Trick, choice, dial


class FeatureMatching(Trick):
    """Feature matching: G makes the mean of D's features on fakes equal their mean on real images.

    |E f(x) - E f(G(z))|^2, summed over features, with f what D's last hidden layer holds and the means over the
    batch; real features are constants to G. `replace` puts it in place of G's loss (the paper), `add` puts
    weight times it beside the loss: two tricks. Under Adam the weight means little in `replace`, where nothing
    else pulls. D keeps its loss.
    """

    claims = [
        Claim(
            "very good semi-supervised classifiers; samples do not look visually appealing",
            "fid",
            1,
            "Salimans et al. 2016, section 3.1",
            "https://arxiv.org/abs/1606.03498",
        )
    ]
    cost = "one more pass of D, over real images, in G's step"
    after = ("hinge", "least_squares", "r3gan", "relativistic", "saturating_loss", "wasserstein", "wgan_gp")
    paired = True
    features = True

    mode: str = choice("replace", among=("replace", "add"), doc="what becomes of G's own loss")
    weight: float = dial(
        1.0, off=0.0, span=(0.0, 1000.0), doc="weight of the distance; 0 leaves G's loss alone"
    )

    def g_loss(self, loss, scores: Scores, at: At):
        import torch

        apart = scores.real_features.mean(0) - scores.fake_features.mean(0)
        matched = self.weight * apart.square().sum()
        return loss + matched if self.mode == "add" else torch.where(self.weight > 0, matched, loss)
