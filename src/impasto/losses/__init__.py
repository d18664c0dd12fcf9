"""From features to numbers: how far a picture is from the photo, and from a painting.

Where each equation is. A number is that of the equation, a section is given in brackets:

Gatys, Ecker & Bethge 2015, arXiv:1508.06576
    1  content loss                `content.ContentLoss`, scaling "gatys"
    2  its derivative              torch's autograd, called by `objective.Objective`
    3  Gram matrix                 `styles.gram`, divided by the number of positions
    4  style loss of one layer     `styles.StyleLoss`, scaling "gatys"
    5  sum over layers             `styles.MeanStyle.losses`: a term for each layer and its share
    6  its derivative              as 2; the compiled Gram matrix has its own, `kernels.ops.gram`
    7  content and style together  `objective.Objective`
Li, Wang, Liu & Hou 2017, arXiv:1701.01036
    MMD                            the module docstring of `styles`
    the Gram loss as an MMD        `styles.Gram`
    MMD, linear kernel             `distributions.LinearMmd`
    MMD, polynomial kernel         `distributions.PolynomialMmd`
    MMD, Gaussian kernel           `distributions.GaussianMmd`
    BN statistics matching         `distributions.BatchNorm`
Gatys, Bethge, Hertzmann & Shechtman 2016, arXiv:1606.05897
    colour histogram (section 4)   `pictures.colours.match_colours`
    luminance only (section 5)     `pictures.colours.match_luminance`, `with_luminance`
Gatys et al. 2017, arXiv:1611.07865
    2  guided Gram matrices        `styles.gram` with an area
    colour control (section 5)     `settings.Settings.keep_colors`
    coarse to fine (section 6)     `paint.levels`
Kolkin et al. 2022, arXiv:2203.13215
    neural neighbours              `neighbors.losses`, equation (1) there; `matching.nearest`
    cosine to the neighbours       `neighbors.NeighborLoss`, equation (2) there
    feature splitting              `neighbors.losses` with `split`
Others
    Sun & Saenko 2016, 1           `distributions.Covariance`
    Dowson & Landau 1982, 4        `distributions.Wasserstein`
    Mahendran & Vedaldi 2015, 6    `smoothness.total_variation`
"""
